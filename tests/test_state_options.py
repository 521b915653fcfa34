"""What a state and a run must have in common: a new option makes no old state a stranger."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, make_dataclass

import pytest

from ema_cli.average import Average, make_average
from ema_cli.errors import StateError
from ema_cli.job import MAY_DIFFER, Job
from ema_cli.parameters.ema import ParameterEMA
from ema_cli.state_options import check_version, defaults_of, differences, options_of
from tests.conftest import Workshop


@dataclass
class Old:
    alpha: list[float]
    min_periods: int = 0


@dataclass
class New(Old):
    centred: bool = False
    names: tuple[str, ...] = ()
    mark: str | None = None


def test_a_state_without_an_option_has_its_default() -> None:
    then = options_of(Old([0.5], 3))
    assert then == {"alpha": [0.5], "min-periods": 3}
    assert not differences(then, options_of(New([0.5], 3)), defaults_of(New))
    assert not differences(options_of(New([0.5], 3)), then, defaults_of(New))
    assert [
        str(each) for each in differences(then, options_of(New([0.5], 3, centred=True)), defaults_of(New))
    ] == ["centred was False, is True"]
    changed = differences(then, options_of(New([0.25], 3, names=("a", "b"), mark="x")), defaults_of(New))
    assert [str(each) for each in changed] == [
        "alpha was 0.5, is 0.25",
        "names was not given, is a, b",
        "mark was not given, is x",
    ]


def test_every_field_of_the_average_is_compared() -> None:
    """So a new field is too, without a line for it anywhere."""
    average = make_average({"alpha": [0.1]})
    signature = average.signature()
    free = {"decays", "like", "name"}  # the last is a matter of how the output is written
    assert set(signature) == {"alpha"} | {name.replace("_", "-") for name in vars(average)} - free
    assert set(signature) - {"alpha"} <= set(defaults_of(Average)), "a field without a default"
    later = make_dataclass("Later", [("surprise", bool, field(default=False))], bases=(Average,), frozen=True)
    assert not differences(signature, later(average.decays).signature(), defaults_of(later))


def test_every_field_of_a_job_is_compared_or_said_to_be_free() -> None:
    assert set(MAY_DIFFER) <= set(Job.__dataclass_fields__)
    compared = set(options_of(Job(make_average({"alpha": [0.1]})), MAY_DIFFER))
    assert compared <= set(defaults_of(Job)), "a field without a default"
    assert "time-unit" in compared


@pytest.mark.parametrize(("found", "says"), [(1, "older"), (3, "newer"), ("2", "damaged"), (True, "damaged")])
def test_versions(found: object, says: str) -> None:
    check_version(2, 2, "x", "begin anew")
    with pytest.raises(StateError, match=says):
        check_version(found, 2, "x", "begin anew")


def rewritten(
    shop: Workshop, change: dict[str, object], options: dict[str, object], drop: tuple[str, ...]
) -> None:
    """Change what the state `s` says of itself."""
    with zipfile.ZipFile(shop.folder / "s") as file:
        members = {name: file.read(name) for name in file.namelist()}
    about = json.loads(members["state.json"]) | change
    about["options"] = {k: v for k, v in about["options"].items() if k not in drop} | options
    with zipfile.ZipFile(shop.folder / "s", "w") as file:
        for name, data in (members | {"state.json": json.dumps(about).encode()}).items():
            file.writestr(name, data)


def test_a_state_from_before_an_option_is_carried_on(shop: Workshop) -> None:
    whole = shop.run("--alpha", "0.5", stdin=b"v\n1\n2\n3\n").out
    shop.run("--alpha", "0.5", "--state", "s", stdin=b"v\n1\n2\n")
    rewritten(shop, {}, {}, drop=("adjust", "residual", "time-unit", "min-periods"))
    assert (
        shop.run("--alpha", "0.5", "--state", "s", stdin=b"v\n3\n").out
        == b"v,v_ema\n" + whole.splitlines(True)[3]
    )
    rewritten(shop, {}, {}, drop=("adjust",))
    assert (
        "adjust was False, is True"
        in shop.run("--alpha", "0.5", "--adjust", "--state", "s", code=1, stdin=b"v\n3\n").err
    )


def test_a_state_with_an_option_that_is_not_known_here_is_refused(shop: Workshop) -> None:
    shop.run("--alpha", "0.5", "--state", "s", stdin=b"v\n1\n2\n")
    rewritten(shop, {}, {"hitherto": "unheard"}, drop=())
    assert (
        "hitherto was unheard, is not given"
        in shop.run("--alpha", "0.5", "--state", "s", code=1, stdin=b"v\n3\n").err
    )


def test_an_older_version_is_refused_with_a_word(shop: Workshop) -> None:
    shop.run("--alpha", "0.5", "--state", "s", stdin=b"v\n1\n2\n")
    rewritten(shop, {"version": 1}, {}, drop=())
    before = shop.read("s")
    error = shop.run("--alpha", "0.5", "--state", "s", code=1, stdin=b"v\n3\n").err
    assert "s: written by an older ema-smooth (state version 1, not " in error
    assert "try: name another state file" in error
    assert shop.read("s") == before


def test_a_parameter_state_from_before_an_option() -> None:
    ema = ParameterEMA({"w": [1.0, 2.0]}, decay=0.5)
    state = ema.state_dict()
    del state["options"]["update_after_step"]
    ema.load_state_dict(state)
    with pytest.raises(StateError, match="update_after_step=0, this object has 3"):
        ParameterEMA({"w": [1.0, 2.0]}, decay=0.5, update_after_step=3).load_state_dict(state)
