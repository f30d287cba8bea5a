"""The picture the model eats: photo to portrait, and back. Free of torch."""
