"""Tasks on Ray Core actors; the only room that imports Ray."""
