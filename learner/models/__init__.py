"""The models of the learner: policy, critic, their vocabularies and LoRA adapters.

Start reading in `policy` (log-probabilities and token values) and `critic` (Q and V of utterances). `pretrained` loads
Hugging Face models, `vocabulary` maps token ids between policy and critic, `adapters` and `adapter_files` are LoRA in
memory and on disk. Layouts that models read are in `learner.passes`, optimizers in `learner.engine`.
"""
