variables {
  stream_arn     = "arn:aws-cn:kinesis:cn-north-1:444455556666:stream/orders"
  table_arn      = "arn:aws-cn:dynamodb:cn-north-1:444455556666:table/checkpoints"
  consumer_name  = "archive"
  stream_key_arn = "arn:aws-cn:kms:cn-north-1:444455556666:key/x"
}

run "no_placeholder_is_left" {
  command = plan

  assert {
    condition     = alltrue([for document in values(output.documents) : !strcontains(document, "111122223333") && !strcontains(document, "arn:aws:")])
    error_message = "A policy is for the placeholders of docs/iam."
  }
  assert {
    condition     = alltrue([for document in values(output.documents) : can(jsondecode(document))])
    error_message = "A policy is no JSON."
  }
}

run "resources_are_those_that_were_named" {
  command = plan

  assert {
    condition     = jsondecode(output.documents["polling"]).Statement[0].Resource == var.stream_arn
    error_message = "Reading is allowed on another stream."
  }
  assert {
    condition     = jsondecode(output.documents["tools-write"]).Statement[1].Resource == var.table_arn
    error_message = "Changing is allowed in another table."
  }
  assert {
    condition     = jsondecode(output.documents["fan-out"]).Statement[1].Resource[1] == "${var.stream_arn}/consumer/archive:*"
    error_message = "Subscribing is allowed as another consumer."
  }
  assert {
    condition     = jsondecode(output.documents["kms"]).Statement[0].Resource == var.stream_key_arn && length(jsondecode(output.documents["kms"]).Statement) == 1
    error_message = "Decrypting is allowed with other keys."
  }
}

run "no_key_no_policy_for_one" {
  command = plan

  variables {
    stream_key_arn = null
  }
  assert {
    condition     = !contains(keys(output.documents), "kms")
    error_message = "There is a policy for no key."
  }
}

run "a_name_is_no_arn" {
  command = plan

  variables {
    stream_arn = "orders"
  }
  expect_failures = [var.stream_arn]
}
