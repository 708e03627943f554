"""The command line and the executors that run the labelling stages, in process or on Ray."""
