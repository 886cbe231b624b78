DROP TABLE oncue_adopted;
