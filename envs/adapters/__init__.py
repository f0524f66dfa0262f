"""Adapters: environments of other packages as `TextEnv`, and environments of this project for other packages.

`gymnasium_env`, `openenv_env`, `textworld_games`, `textarena_games` and `miniwob_env` wrap a package; each imports it
and therefore needs its extra. `specs` describes them without these imports. `gymnasium_served` registers this project's
environments in Gymnasium, and `openenv_served` serves one over OpenEnv's protocol. Games written for this project have
packages of their own beside this one. Start with `gymnasium_env`.

Public names, by module: `GymnasiumEnv`, `OpenEnv`, `TextWorld`, `TextArena`, `MiniWob`, `ServedEnv`, `EnvServer`.
"""
