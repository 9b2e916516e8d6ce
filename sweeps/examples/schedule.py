class Linear:
    def __init__(self, optimizer, epochs):
        self.start, self.epochs, self.epoch = optimizer.param_groups[0]["lr"], epochs, 0

    @property
    def lr(self):
        return self.start * (1 - self.epoch / self.epochs)

    def step(self):
        self.epoch += 1

    def state_dict(self):
        return {"epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]
