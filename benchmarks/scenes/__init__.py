"""Programs that train and judge the embedded models of the Scenes world; no user imports them."""
