"""The commands of `archer`, one file each: a function whose signature Typer turns into arguments and options.

Modules here import only Typer and Rich at their top, because `archer --help` imports all of them; the work of a command
is imported inside its function. `arguments`, `output_folder` and `terminal` hold what several commands share. Start
reading with `train`.
"""
