"""What providers report after they took a message: read from SNS or SQS, then settled in the ledger."""
