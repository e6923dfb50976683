# The table of leases, the policies and the alarms of a Benthos pipeline that reads a
# Kinesis data stream.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_kinesis_stream" "this" {
  name = var.stream_name
}

resource "aws_dynamodb_table" "leases" {
  name         = var.table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "StreamID"
  range_key    = "ShardID"

  attribute {
    name = "StreamID"
    type = "S"
  }
  attribute {
    name = "ShardID"
    type = "S"
  }

  # Deleted, it would take the place in the stream with it.
  deletion_protection_enabled = true

  point_in_time_recovery {
    enabled = true
  }

  # With the key that AWS manages; whoever reads and writes needs no permission for it.
  server_side_encryption {
    enabled = true
  }
}

module "policies" {
  source = "./policies"

  stream_arn     = data.aws_kinesis_stream.this.arn
  table_arn      = aws_dynamodb_table.leases.arn
  consumer_name  = coalesce(var.consumer_name, "benthos-${var.table_name}")
  stream_key_arn = var.stream_key_arn
}

resource "aws_iam_policy" "this" {
  for_each = toset(concat(
    ["polling", "fan-out", "tools-read", "tools-write"],
    var.stream_key_arn == null ? [] : ["kms"],
  ))

  name   = "benthos-${var.table_name}-${each.key}"
  policy = module.policies.documents[each.key]
}
