"""Other people's formats: checkpoints of the paper's authors, recordings for Neo and NWB."""
