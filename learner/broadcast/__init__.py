"""The broadcast of the policy's weights from the learner to the engines, and the proof that it succeeded.

`broadcaster` drives a broadcast (start reading there), `policy_source` yields the tensors to send, `shared_memory`
carries them to the engines of this host, `weight_stream` to those of others. `proof` compares log-probabilities of
learner and engines, and `pending` does so while the learner goes on. NCCL and CUDA IPC are vLLM's own. The receiving
side is `actors.engine.weight_receiver`, behind `actors.engine.streamed_weights` on other hosts.
"""

import logging

# Imported without an engine, vLLM warns about accelerators and Triton, which the learner does not use through it.
logging.getLogger("vllm").setLevel(logging.ERROR)
