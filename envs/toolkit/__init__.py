"""Parts that several environments share, and that an environment of your own can use.

`tool_calls` declares tools and parses calls of them. `grids` holds maps of cells with walls. `argument_checks` checks
arguments. `inform_commands` filters commands for games written in Inform. `mixed_demonstrator` is the base class of
scripted demonstrators. Game rules and texts belong to the packages of the environments. Start with `tool_calls` for an
environment with tools, and with `mixed_demonstrator` for a demonstrator.
"""
