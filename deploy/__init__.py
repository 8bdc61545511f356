"""What an installation is made of; its Python makes files for others, and none of it runs in the service."""
