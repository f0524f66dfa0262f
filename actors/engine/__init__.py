"""One vLLM engine: generation with log-probabilities and policy versions, and the receiving side of weights.

`engine.py` runs in the worker's process and imports vLLM when the engine starts; `launch.py` holds vLLM's arguments.
`extension.py` and `weight_receiver.py` run in the engine's processes. This package knows no environments and no
episodes. Start with `engine.py`.
"""
