"""What all configuration sections share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from grpo_dist.config.kinds import accept

Conflict = tuple[tuple[str | int, ...], str]


class Section(BaseModel):
    """A frozen group of settings; unknown keys and non-finite numbers are errors."""

    # Built when first used, and then as part of the whole: a fifteenth of the time to load a configuration.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )

    takes: ClassVar[str] = "a group of settings"
    """What may be written for the section as a whole, in words."""

    def conflicts(self) -> Iterator[Conflict]:
        """Settings that are right alone and wrong together: (path from here, `what is wrong; what to type`)."""
        return iter(())

    @field_validator("*", mode="before")
    @classmethod
    def _accept(cls, value: Any, info: ValidationInfo) -> Any:
        return accept(cls.model_fields[info.field_name].annotation, value)

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        found = [
            InitErrorDetails(type=PydanticCustomError("conflict", "{what}", {"what": what}), loc=path, input=None)
            for path, what in self.conflicts()
        ]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self


Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]

EMBEDDED = "embedded"
"""The `name_or_path` of the model, and of the data set, that come with the package."""
