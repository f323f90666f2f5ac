"""Recognition of images with a trained run."""
