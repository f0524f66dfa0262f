"""Programs that print figures; see README.md.

A program's own folder comes first on the path, where `learner.py` would hide the room of that name. So each program
puts the checkout's root before it, and `bench.common` takes the folder off the path.
"""
