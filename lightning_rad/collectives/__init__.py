"""The only code that calls torch.distributed: what ranks exchange, and with which gradient."""
