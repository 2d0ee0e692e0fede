"""How often a served model is right about the demo's world, over its API."""
