"""`archer plan`: where each process of a run goes and what memory it needs, without a GPU and without Ray.

`models` finds the configuration of a model, `parts` makes the run's own modules without memory for their weights,
`passes` runs the learner's passes over them and counts bytes, `stage`, `ranks` and `engines` add up what a process
holds, and `placement` packs the processes on nodes by `archer.driver.packing`, as a run does at its start. Start
reading with `plan.make_plan`. Nothing here starts a process or reads weights.
"""
