"""The proof of the learner's passes: its log-probabilities and values are those of the model's own forward pass.

Start reading in `proof`: it runs episodes with fresh actions (`episodes`) through the learner's pass and each of their
sequences alone through the model as its family wrote it (`reference`). `bounded` keeps the proof of a large model
cheap, `differences` finds the layer at which two passes part.
"""
