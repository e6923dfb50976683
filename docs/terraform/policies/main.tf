# The policies of docs/iam with your names in place of their placeholders. It needs no
# provider, so that `terraform test` runs wherever Terraform does.

terraform {
  required_version = ">= 1.6"
}

variable "stream_arn" {
  description = "The ARN of the data stream."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/[a-zA-Z0-9_.-]+$", var.stream_arn))
    error_message = "The ARN is not one of a data stream, such as arn:aws:kinesis:us-east-1:111122223333:stream/foo."
  }
}

variable "table_arn" {
  description = "The ARN of the table of leases."
  type        = string
}

variable "consumer_name" {
  description = "The consumer of enhanced fan-out."
  type        = string
}

variable "stream_key_arn" {
  description = "The ARN of your own key under which the stream is encrypted; null without one."
  type        = string
  default     = null
}

locals {
  documents = {
    for name in ["polling", "fan-out", "create", "tools-read", "tools-write"] : name => replace(replace(replace(
      file("${path.module}/../../iam/${name}.json"),
      "arn:aws:kinesis:us-east-1:111122223333:stream/foo", var.stream_arn),
      "arn:aws:dynamodb:us-east-1:111122223333:table/leases", var.table_arn),
    "consumer/benthos-leases:", "consumer/${var.consumer_name}:")
  }

  # Of a key there is the stream's alone: the table that is made here is encrypted under
  # the key that AWS manages.
  kms = var.stream_key_arn == null ? {} : {
    kms = jsonencode({
      Version = "2012-10-17"
      Statement = [
        for statement in jsondecode(file("${path.module}/../../iam/kms.json")).Statement : merge(statement, {
          Resource = var.stream_key_arn
          Condition = {
            StringEquals = {
              "kms:ViaService" = "kinesis.${split(":", var.stream_arn)[3]}.${startswith(var.stream_arn, "arn:aws-cn:") ? "amazonaws.com.cn" : "amazonaws.com"}"
            }
          }
        }) if statement.Sid == "DecryptStream"
      ]
    })
  }
}

output "documents" {
  description = "The policy documents in JSON, by the names of their files in docs/iam."
  value       = merge(local.documents, local.kms)
}
