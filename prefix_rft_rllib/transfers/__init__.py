"""What travels between processes: new weights, shared inputs, GPU memory."""
