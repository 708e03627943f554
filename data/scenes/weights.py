"""How the world's models lie on disk: what they were trained on, and the small classifiers' weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.plain_json import json_object
from gazetteer.data.scenes.world import VIEWS

if TYPE_CHECKING:
    from torch import nn

MODELS = Path(os.environ.get("GAZETTEER_SCENES_MODELS") or Path(__file__).parent / "models")
"""The world's models: those that ship, or others of the same layout, as while a world is trained."""

WORLD = "world.json"
"""Beside the models: ``views``, from where the scenes they were trained on are seen, and ``training``, by model
``steps``, ``hours`` and ``seed``; ``others``, by model that stayed from another world, the views of that one."""

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def read_world(models: Path = MODELS) -> dict[str, Any]:
    """What `WORLD` says of a folder of models; without one they know the plain landscape, and nobody noted more.

    Raises:
        InputError: a file that is not as `WORLD` describes it.
    """
    file = models / WORLD
    if not file.exists():
        return {"views": [], "training": {}}
    try:
        said = json_object(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); it must hold views.") from error
    views = said.get("views")
    if not isinstance(views, list) or not all(isinstance(view, str) and view in VIEWS for view in views):
        raise InputError(f"{file} must hold views, each one of {', '.join(VIEWS)}.")
    return {"training": {}, **said}


def world_views(models: Path = MODELS) -> tuple[str, ...]:
    """From where the scenes are seen that a folder of models was trained on; () is the plain landscape."""
    return tuple(read_world(models)["views"])


def write_model(model: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write the weights of `model` and what it takes to build it again."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / _WEIGHTS)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path, **kinds: type) -> dict[str, Any]:
    """The configuration that `write_model` wrote.

    Args:
        kinds: by key that must be there, of what type it is.

    Raises:
        FileNotFoundError: the folder holds none.
        InputError: it is not as it was written.
    """
    file = folder / _CONFIG
    try:
        config = json_object(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); install the package, or write the model, again.") from error
    if wrong := [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]:
        raise InputError(f"{file} does not give {', '.join(wrong)} as it was written; write the model again.")
    return config


def read_weights(model: nn.Module, folder: Path) -> None:
    """Fill `model` with the weights in the folder and set it to answering."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(folder / _WEIGHTS))
    model.eval()
