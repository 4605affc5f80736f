"""The pocket model: trained weights, the pictures it can read, and the questions it can answer.

checkpoint/   the weights, an ordinary Hugging Face checkpoint with its model card
weights.py    its name and its folder
words.py      the vocabulary
screen.py     screens and shots as plain data
style.py      fonts, themes and sizes of screens; fonts/ holds the fonts
world.py      seeded windows of screens and shots
tasks.py      questions about a window, with their answers
renderer.py   screens and shots as pixels
page.py       screens as HTML, for a browser to draw
tokenizer.py  the tokenizer and the chat template
model.py      models with random weights in any size, for benchmarks and tests

The training is not part of the package: it is in `training/` in the repository.
"""
