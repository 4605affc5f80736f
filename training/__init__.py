"""Training of the pocket model: the vision tower learns to read cells, then the decoder learns the tasks.

recipe.py    what is trained, on which pictures, in how many steps
run.py       a training from the seed to the checkpoint
study.py     the loop of a stage, which can be interrupted and resumed; schedule.py: its learning rate
start.py     initial weights; frame.py: those of the heads that look up cards
gallery.py   drawn pictures; variety.py: their cells in other looks
reading.py   the first stage; tower.py: the vision tower over loose cells
decoding.py  the second stage; batch.py: its batches; bank.py: the features they are built from
probes.py, relations.py   what hidden states should know of earlier pictures
gaze.py      where heads should look; attention.py: how much they look there
"""
