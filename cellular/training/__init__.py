"""What trains a model on one worker or many: schedule, optimiser, averages, buckets. torch, and no Ray."""
