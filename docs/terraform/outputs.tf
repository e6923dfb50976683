output "table_arn" {
  description = "The ARN of the table of leases."
  value       = aws_dynamodb_table.leases.arn
}

output "policy_arns" {
  description = "The ARNs of the policies, by the names of their files in docs/iam."
  value       = { for name, policy in aws_iam_policy.this : name => policy.arn }
}
