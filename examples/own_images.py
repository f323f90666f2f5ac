"""Recognise your own images, from Python: data set, training, and a class that has no image.

python examples/own_images.py data             # data/images/<class>/* and data/classes.csv
"""

import sys
from pathlib import Path

import fastzsl
from fastzsl.train import train
from fastzsl.training.settings import Settings

root = Path(sys.argv[1])
more = dict(word.split("=") for word in sys.argv[2:])  # for example epochs=60
settings = Settings().changed(
    dataset="folder", root=root, out=root / "run", **{k: int(v) for k, v in more.items()}
)
train(settings)

recogniser = fastzsl.load(root / "run")
image = sorted((root / "images").rglob("*.*"))[0]
middle = recogniser.own.embeddings.mean(0).tolist()  # the attributes of your new class; here: average ones
for prediction in recogniser.predict(image, {"something new": middle}, beside="seen"):
    print(prediction.image, prediction.top(3))
