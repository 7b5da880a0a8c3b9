"""Writes the generated pages of docs/: python docs/pages"""

from __future__ import annotations

from pathlib import Path

import commands
import configuration
import troubleshooting

DOCS = Path(__file__).parent.parent

for module in (commands, configuration, troubleshooting):
    (DOCS / f"{module.__name__}.md").write_text(module.page(), encoding="utf-8")
