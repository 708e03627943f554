"""Page, styles and scripts that `gazetteer explore` serves beside the atlas's own."""
