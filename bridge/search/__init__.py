"""What every linear should read: searches over plans at one budget, judged by the model's loss."""
