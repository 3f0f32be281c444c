"""The page. It shows what the pipeline made and trains nothing."""
