"""Writes the generated pages of docs/: python docs/pages"""

from __future__ import annotations

from pathlib import Path

import configuration
import troubleshooting

DOCS = Path(__file__).parent.parent

for module in (configuration, troubleshooting):
    (DOCS / f"{module.__name__}.md").write_text(module.page(), encoding="utf-8")
