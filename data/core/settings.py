"""What a setting is: its default, what it means and what it affects, written once, on the field itself.

A class of settings is a frozen data class that pydantic checks, from a file as from Python: strictly typed, with no
unknown key, and with ranges on the types (`Count`, `Share`, `OneOf`). What pydantic finds is said in this project's
sentences. Fingerprints, what may be reused of another run, names of pictures and the reference of all keys are derived
from the fields (`walk`), so that no list of names can disagree with them.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import dataclass_transform

from gazetteer.data.core.complaints import UNKNOWN_KEY, complaint, dotted
from gazetteer.data.core.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

C = TypeVar("C")

Count = Annotated[int, Ge(1)]
"""At least 1."""
Natural = Annotated[int, Ge(0)]
"""At least 0."""
Seed = Annotated[int, Ge(0), Lt(2**63)]
"""What every generator of random numbers takes: 0 to 2^63 - 1."""
Fraction = Annotated[float, Ge(0), Le(1)]
"""In [0, 1]."""
Positive = Annotated[float, Gt(0)]
"""Above 0."""
NonNegative = Annotated[float, Ge(0)]
"""At least 0."""


class Effect(str, Enum):
    """The first thing that a setting changes; what is made from it changes with it."""

    SELECTION = "selection"
    """Which pictures there are, and in which shards."""
    PICTURES = "pictures"
    """What the picture of a prompt and seed looks like."""
    CODES = "codes"
    """Where the model is listened to and what encodes it."""
    SEGMENTS = "segments"
    """What is found in a picture, and where."""
    LABELS = "labels"
    """What becomes of codes and segments: evidence and the final tables."""
    TRAINING = "training"
    """The autoencoders that `gazetteer sae train` makes, and no table of a run."""
    MEASUREMENTS = "measurements"
    """What `steer`, `causal` and `attribute` measure, and no table that `label` writes."""
    NOTHING = "nothing"
    """Only speed, place, or when something is given up."""


@dataclass(frozen=True)
class OneOf:
    """A constraint for `Annotated[str, OneOf(...)]`: the value is one of these."""

    accepted: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Pydantic's hook: check the type, then this."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: str) -> str:
            if value not in self.accepted:
                raise PydanticCustomError("one_of", "{accepted}", {"accepted": self.said})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    @property
    def said(self) -> str:
        """The accepted values as a sentence lists them."""
        return ", ".join(word or "empty" for word in self.accepted)


@dataclass(frozen=True)
class TextOrNames:
    """A constraint for `Annotated[str | dict[str, str], TextOrNames(...)]`: text, or names with text, not empty."""

    said: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Pydantic's hook, instead of the check of a union, which complains of every alternative."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            names = isinstance(value, dict) and value and all(isinstance(name, str) for name in value.values())
            if not (isinstance(value, str) or names):
                raise PydanticCustomError("one_of", "{accepted}", {"accepted": self.said})
            return value

        return core_schema.no_info_plain_validator_function(check)


@dataclass(frozen=True)
class About:
    """What stands on a setting beside its type and default.

    Attributes:
        effect: the first thing it changes; on a group of settings: of all of them that change anything.
        meaning: one sentence or a few, without the default.
        path: its text may name a file or folder: looked for beside the configuration, digested in the fingerprint.
        names: texts that mean something that ships with the project, whatever file or folder is called so.
        late: left out of fingerprints and names while it has its default, so that runs and pictures made before the
            setting existed keep theirs.
        last_bits: of the effect, only rounding: a picture keeps its name.
        kind: what of the value counts, e.g. of the device ``cuda:1`` that it is ``cuda``.
        internal: no key of the configuration.
    """

    effect: Effect | None = None
    meaning: str = ""
    path: bool = False
    late: bool = False
    last_bits: bool = False
    kind: Callable[[Any], Any] | None = None
    internal: bool = False
    names: tuple[str, ...] = ()


def setting(
    effect: Effect | None = None,
    meaning: str = "",
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    path: bool = False,
    late: bool = False,
    last_bits: bool = False,
    kind: Callable[[Any], Any] | None = None,
    internal: bool = False,
    names: tuple[str, ...] = (),
) -> Any:
    """A field of a class of settings; the arguments are those of `About`, and the field's default."""
    about = About(effect, meaning, path, late, last_bits, kind, internal, names)
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata={"about": about})
    return dataclasses.field(default=default, metadata={"about": about})


def device_setting(
    effect: Effect, meaning: str = "A torch device, e.g. ``cpu``, ``cuda:1``.", *, default: str, late: bool = True
) -> Any:
    """A field that names a torch device: its kind alone (``cuda`` of ``cuda:1``) says which kernels run."""
    return setting(effect, meaning, default=default, kind=_device_kind, late=late, last_bits=True)


def _device_kind(name: str) -> str:
    return name.partition(":")[0]


@dataclass_transform(frozen_default=True, field_specifiers=(setting, device_setting, dataclasses.field))
def settings(section: str) -> Callable[[type[C]], type[C]]:
    """Make a frozen data class of settings, checked whenever one is made.

    Args:
        section: what stands before its keys where one that was made from Python is complained about, e.g. ``model``.

    Returns:
        a decorator; making an instance raises InputError, which names the first wrong key, what it is and what is
        accepted. Lists are taken for tuples.
    """

    def decorate(cls: type[C]) -> type[C]:
        from pydantic import ConfigDict, ValidationError
        from pydantic.dataclasses import dataclass as checked

        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
        made: Any = checked(frozen=True, config=config)(cls)
        inner, names = made.__init__, [field.name for field in dataclasses.fields(made) if field.init]

        @functools.wraps(inner)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            named = dict(zip(names, args, strict=False))  # so that what is wrong has a name
            if len(args) > len(names) or named.keys() & kwargs.keys():
                raise TypeError(f"{cls.__name__} takes each of {', '.join(names)} once")
            try:
                inner(self, **{name: _tuple(value) for name, value in {**named, **kwargs}.items()})
            except ValidationError as error:
                raise InputError(_complaint(error, made, section)) from None

        made.__init__ = __init__
        return made  # type: ignore[no-any-return]

    return decorate


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class SettingError(InputError):
    """A wrong setting; `loc` is its place, from the outermost key to the value."""

    def __init__(self, message: str, loc: Sequence[str | int]) -> None:
        super().__init__(message)
        self.loc = tuple(loc)


def from_json(cls: type[C], text: str) -> C:
    """Settings from a JSON object of their keys; raises SettingError as making one does, with whole dotted keys."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_json(text)
    except ValidationError as error:
        raise SettingError(_complaint(error, cls, ""), _first(error)["loc"]) from None


def _complaint(error: ValidationError, cls: type, section: str) -> str:
    """The first thing wrong, as one sentence; unknown keys come before all others."""
    first = _first(error)
    loc, here, elsewhere = first["loc"], list[str](), list[str]()
    if first["type"] == UNKNOWN_KEY:
        here = [field.name for field in fields(_group(cls, loc[:-1]))]
        elsewhere = [known.key for known in walk(cls)]
    return complaint(first, dotted([section, *loc] if section else loc), here, elsewhere)


def _first(error: ValidationError) -> Any:
    """The first of what is wrong, unknown keys before all others."""
    errors = error.errors(include_url=False)
    return next((problem for problem in errors if problem["type"] == UNKNOWN_KEY), errors[0])


@dataclass(frozen=True)
class Setting:
    """One key of a configuration.

    Attributes:
        key: dotted, e.g. ``generation.steps``.
        name: of the field.
        hint: its type, as the class states it.
        about: what stands on it, with the effect that counts where it is.
        default: `dataclasses.MISSING` where there is none.
        group: the class of settings that it is a key of.
    """

    key: str
    name: str
    hint: Any
    about: About
    default: Any
    group: type


def fields(cls: type) -> Iterator[Setting]:
    """The settings and groups of settings of one class, in the order of its fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        about = field.metadata.get("about", About())
        default = field.default_factory() if callable(field.default_factory) else field.default
        if field.init and not about.internal:
            yield Setting(field.name, field.name, hints[field.name], about, default, cls)


def walk(cls: type, prefix: str = "", effect: Effect | None = None) -> Iterator[Setting]:
    """Every setting below `cls`, groups opened, in the order of the fields.

    A list of settings (``pools``) is one setting. Where a group states an effect, all below it that change anything
    have that one.
    """
    for setting in fields(cls):
        inner, key = group_of(setting.hint), f"{prefix}{setting.name}"
        counted = setting.about.effect if effect is None or setting.about.effect is Effect.NOTHING else effect
        if inner is not None:
            yield from walk(inner, f"{key}.", counted)
        else:
            yield dataclasses.replace(setting, key=key, about=dataclasses.replace(setting.about, effect=counted))


def group_of(hint: Any) -> type | None:
    """The class of settings that a type is (``X`` or ``X | None``), or None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next((group for argument in typing.get_args(hint) if (group := group_of(argument)) is not None), None)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _group(cls: type, loc: Sequence[str | int]) -> type:
    """The class of settings at a place below `cls`."""
    for part in loc:
        if isinstance(part, str):
            hint = next(setting.hint for setting in fields(cls) if setting.name == part)
            cls = group_of(hint) or next(
                group for argument in typing.get_args(hint) if (group := group_of(argument)) is not None
            )
    return cls
