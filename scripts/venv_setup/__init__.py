"""What scripts/setup_venv.py does. Standard library only: it runs before anything is installed."""
