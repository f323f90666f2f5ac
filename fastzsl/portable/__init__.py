"""Trained runs in forms that other programs read: ONNX, torch.export, and a folder of plain PyTorch."""
