variable "stream_name" {
  description = "The data stream that is read. It has to exist in this account and region."
  type        = string
}

variable "table_name" {
  description = "The table of leases and checkpoints, as in the field dynamodb.table."
  type        = string
  default     = "leases"
}

variable "consumer_name" {
  description = "The consumer of enhanced fan-out, as in the field enhanced_fan_out.consumer_name; null where that is empty."
  type        = string
  default     = null
}

variable "stream_key_arn" {
  description = "The ARN of your own key under which the stream is encrypted; null without one."
  type        = string
  default     = null
}

variable "iterator_age_milliseconds" {
  description = "How far readers may be behind before it is an alarm."
  type        = number
  default     = 600000
}

variable "alarm_actions" {
  description = "ARNs of what alarms are sent to, such as SNS topics."
  type        = list(string)
  default     = []
}
