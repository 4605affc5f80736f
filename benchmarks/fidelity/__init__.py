"""How much of a full prefill each way of reusing KV keeps, on a model that has learned something."""
