"""The paper's model on your own tensors and in your own loop.

python examples/own_loop.py
"""

import torch

from fastzsl import AttendedAutoencoder

torch.manual_seed(0)
B, T, d, m, seen, C = (
    120,
    9,
    32,
    6,
    8,
    12,
)  # images, regions, feature size, attributes, seen classes, all classes
class_embeddings = torch.rand(C, m).round(decimals=1)
looks = torch.randn(m, d)
labels = torch.arange(B) % seen


def draw(labels: torch.Tensor) -> torch.Tensor:
    """Regions (B, T, d) of noise; one region of each image shows its class."""
    regions = 0.3 * torch.randn(len(labels), T, d)
    place = torch.randint(T, (len(labels),))
    regions[torch.arange(len(labels)), place] += class_embeddings[labels] @ looks
    return 20 * regions  # features of a backbone have a size of their own


regions = draw(labels)
model = AttendedAutoencoder(d, m, feature_power=1.0, feature_dropout=0.0)
model.fit_scaling(regions, class_embeddings[:seen])  # once, on training data; without it training warns
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(100):
    chosen = torch.randint(B, (40,))
    terms = model.loss(regions[chosen], labels[chosen], class_embeddings, torch.arange(seen))
    optimizer.zero_grad()
    terms["loss"].backward()
    optimizer.step()
    if step % 33 == 0:
        print(f"step {step}: loss {terms['loss'].item():.3f}")

unseen = torch.arange(seen, C).repeat(25)  # classes of which no image was shown
with torch.no_grad():
    scores = model.eval()(draw(unseen), class_embeddings[seen:])
accuracy = (scores.argmax(1) + seen == unseen).float().mean().item()
print(f"accuracy on unseen classes: {accuracy:.2f} (guessing: {1 / (C - seen):.2f})")
