"""The configuration of a run: its models, and the way from YAML and `key=value` to a checked `RunConfig`.

Start reading with `models.RunConfig` (the fields) and `loading.load_config` (the way). `overrides`, `presets` and
`yaml_values` serve `loading`; `fields` describes each field in words, for `archer config --fields` and for the error
messages of `mistakes`. The settings of replay, rollouts and learner are defined in their own rooms.

This package exports nothing, so that importing one module does not import pydantic and every other room's settings.
"""
