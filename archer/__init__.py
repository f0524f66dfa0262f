"""The command line, the configuration, and the run that connects the other rooms.

`archer.commands` holds one file per command, `archer.config` reads configurations, `archer.run` and `archer.driver`
carry out a run, `archer.results` evaluates and reports, `archer.imports` reads episodes of other projects. No other
room imports this one. Start reading with `archer.run.run`, the run on one page.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "ArcherError": "archer.errors",
    "ConfigError": "archer.errors",
    "RunConfig": "archer.config.models",
    "RunError": "archer.errors",
    "RunFolder": "archer.driver.run_folder",
    "dump_config": "archer.config.loading",
    "load_config": "archer.config.loading",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import archer` is fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
