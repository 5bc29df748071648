"""PyTorch: reads torch.nn.Module models and writes into their storage."""
