"""Other people's formats and networks: checkpoints of the paper's authors, recordings for Neo and NWB, networks of
other libraries."""
