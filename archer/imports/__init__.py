"""Episodes that no policy of the run played: read from files, and written by `archer record` and `archer import`.

Start reading with `formats`, the formats of `archer import`: `lmrl` for LMRL-Gym, `conversations` for files and runs in
the replay schema. `episode_folder` writes episodes. This package exports nothing: see `formats.READERS` and
`conversations.read_imports`.
"""
