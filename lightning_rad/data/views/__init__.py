"""What a view recipe draws and how it is rendered."""
