"""The names of settings that are read from the schema's source are those that the schema has."""

import dataclasses
import types
import typing
from collections.abc import Iterator

from optmerge.commands.settings import settings
from optmerge.config import Config, compose_config
from optmerge.groups import groups


def fields(kind: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The settings of the schema, by running it."""
    for name, hint in typing.get_type_hints(kind).items():
        inner = [one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)]
        if dataclasses.is_dataclass(hint) or (isinstance(hint, types.UnionType) and inner):
            yield from fields(inner[0] if inner else hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif typing.get_origin(hint) is not dict:
            yield prefix + name, hint


def test_settings_of_the_schema_are_all_there_and_no_others() -> None:
    typed = {name for name, one in settings([], {}).items() if one.kind}
    assert typed == {name for name, _ in fields(Config)}


def test_kinds_and_descriptions_are_the_schemas() -> None:
    found = settings([], {})
    assert {name for name, one in found.items() if one.kind == "bool"} == {
        name for name, hint in fields(Config) if hint is bool
    }
    assert found["study.trials"].about == "How many are to finish"
    assert all("\n" not in one.about for one in found.values())


def test_settings_of_a_plugin_are_those_of_the_chosen_file() -> None:
    known = groups()
    assert {"sampler.sigma", "task.search.path", "method.parameters.weight.high"} <= set(settings([], known))
    chosen = settings(["sampler=tpe", "method=slerp"], known)
    assert "sampler.startup_trials" in chosen
    assert "sampler.sigma" not in chosen
    assert "method.parameters.t.low" in chosen
    assert compose_config(["sampler=tpe", "sampler.startup_trials=3"]).sampler["startup_trials"] == 3
