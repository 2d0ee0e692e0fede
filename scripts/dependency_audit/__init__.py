"""What is installed beside this project, and whether it is what it should be; see audit_dependencies.py."""
