"""Episodes that no policy of the run played: read from files, and written by `archer record` and `archer import`.

Start reading with `conversations.read_imports`, which reads files and runs in the replay schema. `lmrl` reads files of
LMRL-Gym, and `episode_folder` writes episodes. This package exports nothing.
"""
