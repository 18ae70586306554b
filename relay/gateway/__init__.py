"""One request's life: the caller, the model, the channel, the stream, the record."""
