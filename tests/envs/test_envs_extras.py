"""Optional extras: who lacks one is told which, and the command that installs it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from env_cases import SPEC, Counting

import envs
from envs import EnvError, MissingExtraError, extras, registry


@pytest.fixture
def lacking(monkeypatch):
    """An environment `wrapped` whose extra `nowhere` isn't installed."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(extras, "EXTRA_MODULES", {"nowhere": ("no_such_module", "json")})
    envs.register(replace(SPEC, id="wrapped", extra="nowhere"), "no_such_package.env:Env", demonstrator=Counting)
    return "wrapped"


def test_a_missing_extra_is_named_with_the_command_that_installs_it(lacking):
    says = r"wrapped needs the optional extra 'nowhere', but no_such_module is not installed: run `make install`"
    for call in (envs.check, envs.make):
        with pytest.raises(MissingExtraError, match=says) as caught:
            call(lacking)
        assert isinstance(caught.value, EnvError)
    assert envs.missing_modules("nowhere") == ["no_such_module"]


def test_nothing_is_missing_of_what_is_installed_or_unknown(monkeypatch):
    monkeypatch.setattr(extras, "EXTRA_MODULES", {"here": ("json",)})
    extras.require_extra("here", "wrapped")
    extras.require_extra("of someone else", "wrapped")
    extras.require_extra(None, "wrapped")
    assert envs.missing_modules("here") == []
